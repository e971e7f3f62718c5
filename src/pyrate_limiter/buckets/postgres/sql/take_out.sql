-- So many units (v_place) of an acquisition, and the gap that they leave; where many are behind it,
    -- that stays until it has expired.
    DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM @table@ WHERE item_timestamp = v_item AND token = p_token AND units = 0
        OFFSET greatest(0, least(v_units - v_place, @most_rows@) - 1)
    ));
    IF v_place < v_units THEN
      UPDATE @table@ SET units = units - v_place
        WHERE seq = v_own AND token = p_token AND @numbered@ @mine@;
    ELSE
      DELETE FROM @table@ WHERE seq = v_own AND token = p_token AND @numbered@ @mine@;
    END IF;
    IF (SELECT count(*) < 256 FROM (
      SELECT FROM @table@ WHERE seq > v_own AND @numbered@ @mine@ LIMIT 256
    ) behind) THEN
      UPDATE @table@ SET seq = seq - v_place WHERE seq > v_own AND @numbered@ @mine@;
    END IF;
