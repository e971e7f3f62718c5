IF p_token % @clean_each_key@ < p_weight THEN
      -- Of any name, for a name that is never used again has nobody else to clean up after it. From
      -- where the last sweep has ended on: what it has deleted may be in the index for as long as
      -- somebody has an old snapshot.
      @bound@
      WITH old AS (
        SELECT ctid, at_ms, item_timestamp, token, units FROM @table@
          WHERE at_ms >= p_swept AND at_ms < v_bound AND units > 0
          ORDER BY at_ms LIMIT @most_of_keys@ FOR UPDATE SKIP LOCKED
      @sweep@
    END IF;
