IF EXISTS (SELECT FROM @table@ WHERE seq IS NULL AND @numbered@ AND at_ms IS NULL) THEN
      -- Written by 4.5.1, in this session's time zone; it never writes ahead of the clock.
      WITH adopted AS (
        UPDATE @table@ SET units = 1, at_ms = least(
          v_clock, floor(extract(epoch FROM item_timestamp::timestamptz) * 1000)::bigint
        ) WHERE seq IS NULL AND @numbered@ AND at_ms IS NULL RETURNING at_ms
      ) SELECT min(at_ms) INTO v_first FROM adopted;
      @renumber@
    END IF;
