IF v_first >= v_numbers[1] THEN
            v_leaves := v_times[width_bucket(v_first, v_numbers)] + p_intervals[i] + 1;
          ELSE
            SELECT @counts@ + p_intervals[i] + 1 INTO v_leaves FROM @table@ unit
              WHERE seq <= v_first AND @numbered@ @mine@ ORDER BY seq DESC LIMIT 1;
          END IF;
