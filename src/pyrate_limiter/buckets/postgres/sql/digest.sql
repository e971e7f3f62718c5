SELECT hashtextextended(coalesce(string_agg(at || '*' || units, ',' ORDER BY at), ''), 0) FROM (
        SELECT @at@ AS at, @units@ AS units FROM @table@ WHERE @at@ >= p_bound @live@ @mine@ GROUP BY 1
      ) seen
