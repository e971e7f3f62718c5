IF p_token % 64 < p_weight THEN
      -- Of any name, for a name that is never used again has nobody else to clean up after it. From
      -- where the last sweep has ended on: what it has deleted may be in the index for as long as
      -- somebody has an old snapshot.
      WITH old AS (
        SELECT ctid, at_ms, item_timestamp, token, units FROM @table@
          WHERE at_ms >= p_swept AND at_ms < v_now - p_intervals[array_length(p_rates, 2)] AND units > 0
          ORDER BY at_ms LIMIT 512 FOR UPDATE SKIP LOCKED
      ), others AS (
        DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
          SELECT other.ctid FROM old JOIN @table@ other USING (item_timestamp, token)
            WHERE old.units > 1 AND other.units = 0
        ))
      ), gone AS (
        DELETE FROM @table@ WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING at_ms
      ) SELECT max(at_ms) INTO v_swept FROM gone;
    END IF;
