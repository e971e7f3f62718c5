UPDATE @table@ stored SET seq = fresh.number FROM (
      SELECT ctid AS place, row_number() OVER (ORDER BY at_ms, seq) + coalesce((
        SELECT seq FROM @table@ WHERE at_ms < v_first @mine@ ORDER BY at_ms DESC, seq DESC LIMIT 1
      ), 0) AS number
      FROM @table@ WHERE at_ms >= v_first @mine@
    ) fresh WHERE stored.ctid = fresh.place AND stored.seq IS DISTINCT FROM fresh.number;
