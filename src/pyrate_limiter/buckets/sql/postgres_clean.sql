IF v_last / 256 > (v_last - p_weight) / 256 THEN
      DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM @table@
        WHERE seq <= v_last - p_limits[cardinality(p_limits)] - 1024 AND at_ms < v_now - v_longest
        ORDER BY seq LIMIT 1024 + 2 * p_weight
      ));
    END IF;
