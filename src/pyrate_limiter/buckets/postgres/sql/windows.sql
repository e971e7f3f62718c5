-- Behind all, in the first windows, aligned to the clock, that have room.
    v_fits := greatest(v_now, v_held, v_newest);
    FOR k IN 1 .. @rounds@ LOOP
      v_moment := v_fits;
      FOR i IN 1 .. array_length(p_rates, 2) LOOP
        SELECT seq INTO v_first FROM @table@ WHERE at_ms >= v_fits - v_fits % p_intervals[i] AND units > 0 @mine@
          ORDER BY at_ms, seq LIMIT 1;
        IF v_last - v_first + 1 + p_weight > p_limits[i] THEN
          v_failing := coalesce(v_failing, i);
          v_fits := v_fits - v_fits % p_intervals[i] + p_intervals[i];
        END IF;
      END LOOP;
      EXIT WHEN v_fits = v_moment;
    END LOOP;
