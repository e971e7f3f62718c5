IF v_last / @clean_each@ > (v_last - p_weight) / @clean_each@ THEN
      -- Bounded, and still some to look at for a while. From where the last sweep has ended on: what
      -- it has deleted may be in the index for as long as somebody has an old snapshot.
      @bound@
      SELECT seq INTO v_first FROM @table@ WHERE at_ms < v_bound AND units > 0
        ORDER BY at_ms DESC, seq DESC LIMIT 1;
      WITH old AS (
        SELECT ctid, at_ms, item_timestamp, token, units FROM @table@
          WHERE at_ms >= p_swept AND at_ms < v_bound AND units > 0 AND seq <= v_first - @left@
          ORDER BY at_ms LIMIT @left@ FOR UPDATE SKIP LOCKED
      @sweep@
      v_first := NULL;
    END IF;
