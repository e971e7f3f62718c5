-- In the first windows, aligned to the clock, that have room; of many that are claimed, behind all.
    v_fits := greatest(v_now, p_not_before, CASE WHEN p_patience = 0 THEN v_newest ELSE (
      SELECT at_ms FROM @table@ WHERE v_newest > v_now AND @numbered@ @mine@
        ORDER BY seq DESC OFFSET 64 LIMIT 1
    ) END);
    FOR k IN 1 .. 64 LOOP
      v_moment := v_fits;
      FOR i IN 1 .. array_length(p_rates, 2) LOOP
        v_leaves := v_fits - v_fits % p_intervals[i] + p_intervals[i];
        v_upto := v_last;
        IF v_newest >= v_leaves THEN
          SELECT seq + units - 1 INTO v_upto FROM @table@ WHERE at_ms < v_leaves AND units > 0 @mine@
            ORDER BY at_ms DESC, seq DESC LIMIT 1;
        END IF;
        SELECT seq INTO v_first FROM @table@ WHERE at_ms >= v_leaves - p_intervals[i] AND units > 0 @mine@
          ORDER BY at_ms, seq LIMIT 1;
        IF v_upto - v_first + 1 + p_weight > p_limits[i] THEN
          v_failing := coalesce(v_failing, i);
          v_fits := v_leaves;
        END IF;
      END LOOP;
      EXIT WHEN v_fits = v_moment;
      IF k = 32 THEN
        v_fits := greatest(v_fits, v_newest);
      END IF;
    END LOOP;
    IF v_newest > v_fits THEN  -- beside those who are claimed for the same window
      IF v_fits > v_now THEN
        SELECT least(at_ms, v_fits + coalesce(p_buffer, p_pads[v_failing])) INTO v_fits FROM @table@
          WHERE at_ms > v_fits AND units > 0 @mine@ ORDER BY at_ms, seq LIMIT 1;
      END IF;
      SELECT seq INTO v_place FROM @table@ WHERE at_ms > v_fits AND units > 0 @mine@
        ORDER BY at_ms, seq LIMIT 1;
    END IF;
