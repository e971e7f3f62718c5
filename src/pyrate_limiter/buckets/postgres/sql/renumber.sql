UPDATE @table@ stored SET seq = fresh.number FROM (
        SELECT ctid AS place, sum(units) OVER (ORDER BY at_ms, seq ROWS UNBOUNDED PRECEDING)
          - units + coalesce((
            SELECT seq + units FROM @table@ WHERE at_ms < v_first AND units > 0 @mine@
              ORDER BY at_ms DESC, seq DESC LIMIT 1
          ), 1) AS number
        FROM @table@ WHERE at_ms >= v_first AND units > 0 @mine@
      ) fresh WHERE stored.ctid = fresh.place AND stored.seq IS DISTINCT FROM fresh.number;
