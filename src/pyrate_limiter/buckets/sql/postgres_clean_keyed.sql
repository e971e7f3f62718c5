IF p_token % 64 < p_weight THEN
      -- Of any name, for a name that is never used again has nobody else to clean up after it.
      DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM @table@ WHERE at_ms < v_now - p_intervals[array_length(p_rates, 2)]
        ORDER BY at_ms LIMIT 512 + 2 * p_weight FOR UPDATE SKIP LOCKED
      ));
    END IF;
