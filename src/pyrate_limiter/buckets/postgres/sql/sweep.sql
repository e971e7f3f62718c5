), others AS (
        DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
          SELECT other.ctid FROM old JOIN @table@ other USING (item_timestamp, token)
            WHERE old.units > 1 AND other.units = 0
        ))
      ), gone AS (
        DELETE FROM @table@ WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING at_ms
      ) SELECT max(at_ms) INTO v_swept FROM gone;
