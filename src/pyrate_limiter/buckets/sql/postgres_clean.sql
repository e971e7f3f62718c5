IF v_last / 256 > (v_last - p_weight) / 256 THEN
      -- Bounded, and still some to look at for a while.
      SELECT seq INTO v_first FROM @table@
        WHERE at_ms < v_now - p_intervals[array_length(p_rates, 2)] ORDER BY at_ms DESC, seq DESC LIMIT 1;
      DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM @table@ WHERE seq <= v_first - 1024 ORDER BY seq LIMIT 1024 + 2 * p_weight
      ));
      v_first := NULL;
    END IF;
