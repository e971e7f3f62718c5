IF EXISTS (SELECT FROM @table@ WHERE seq IS NULL AND @numbered@ AND at_ms IS NULL) THEN
      -- Written by 4.5.1, in this session's time zone; it never writes ahead of the clock.
      WITH adopted AS (
        UPDATE @table@ SET units = 1, at_ms = least(
          v_clock, @stored_ms@
        ) WHERE seq IS NULL AND @numbered@ AND at_ms IS NULL RETURNING at_ms
      ) SELECT min(at_ms) INTO v_first FROM adopted;
      UPDATE @table@ stored SET seq = fresh.number FROM (
        SELECT ctid AS place, sum(units) OVER (ORDER BY at_ms, seq ROWS UNBOUNDED PRECEDING)
          - units + coalesce((
            SELECT seq + units FROM @table@ WHERE at_ms < v_first AND units > 0 @mine@
              ORDER BY at_ms DESC, seq DESC LIMIT 1
          ), 1) AS number
        FROM @table@ WHERE at_ms >= v_first AND units > 0 @mine@
      ) fresh WHERE stored.ctid = fresh.place AND stored.seq IS DISTINCT FROM fresh.number;
    END IF;
