CASE WHEN claimed_ms < at_ms AND at_ms <= v_now THEN greatest(at_ms, (
          SELECT at_ms FROM @table@ gone WHERE gone.seq < unit.seq AND @numbered@
            AND (claimed_ms IS NULL OR claimed_ms >= at_ms) @mine@ ORDER BY seq DESC LIMIT 1
        )) ELSE at_ms END
