@stands@; SELECT @at@, @units@, coalesce(@own@, 0) FROM @table@
        WHERE @at@ >= p_bound @live@ @mine@ GROUP BY 1 ORDER BY 1; @digest@
