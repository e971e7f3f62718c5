-- Also before others who are to come, where each of them stays within the limits.
      SELECT array_agg(seq ORDER BY seq), array_agg(seq + units - 1 ORDER BY seq), array_agg(at_ms ORDER BY seq)
        INTO v_numbers, v_ends, v_times FROM (
          SELECT *, max(seq) FILTER (WHERE at_ms <= v_fits) OVER () AS last FROM (
            SELECT * FROM @table@ WHERE @numbered@ AND seq IS NOT NULL @mine@ ORDER BY seq DESC LIMIT @looks@
          ) newest
        ) ahead WHERE seq > coalesce(last, 0);
      v_count := coalesce(cardinality(v_numbers), 0);
      IF v_count = @looks@ THEN
        v_fits := v_times[1];
      END IF;
      -- In a full log one look at the last of them is enough.
      FOR i IN 1 .. array_length(p_rates, 2) LOOP
        v_first := v_last + p_weight - p_limits[i];
        IF v_first < v_numbers[1] THEN
          SELECT @counts@ + p_intervals[i] + 1 INTO v_leaves FROM @table@ unit
            WHERE seq <= v_first AND @numbered@ @mine@ ORDER BY seq DESC LIMIT 1;
          IF v_leaves > v_times[v_count] THEN
            v_failing := coalesce(v_failing, i);
            v_count := 0;
          END IF;
        END IF;
      END LOOP;
      FOR k IN CASE WHEN v_count = @looks@ THEN 2 ELSE 1 END .. v_count LOOP
        v_cap := v_times[k];
        FOR i IN 1 .. array_length(p_rates, 2) LOOP
          v_first := v_numbers[k] - 1 + p_weight - p_limits[i];
          @leaves@
          v_leaves := v_leaves + coalesce(p_buffer, p_pads[i]);
          IF v_leaves > v_fits THEN
            v_failing := coalesce(v_failing, i);
            v_fits := v_leaves;
          END IF;
          v_upto := v_numbers[k] + p_limits[i] - p_weight;  -- the unit that would leave after it
          IF v_upto <= v_last THEN
            v_cap := least(v_cap, v_times[width_bucket(v_upto, v_numbers)] - p_intervals[i] - 1);
          END IF;
        END LOOP;
        FOR i IN 1 .. CASE WHEN v_fits <= v_cap THEN array_length(p_rates, 2) ELSE 0 END LOOP
          FOR j IN k .. v_count LOOP
            v_first := least(v_ends[j], v_numbers[k] + p_limits[i] - p_weight - 1) + p_weight - p_limits[i];
            @leaves@
            IF v_leaves > v_times[j] THEN
              v_failing := coalesce(v_failing, i);
              v_cap := v_fits - 1;
            END IF;
            EXIT WHEN v_cap < v_fits OR v_ends[j] >= v_numbers[k] + p_limits[i] - p_weight;
          END LOOP;
        END LOOP;
        IF v_fits <= v_cap THEN
          v_place := v_numbers[k];
          EXIT;
        END IF;
        v_fits := v_times[k];
      END LOOP;
