-- So many (v_units) of the units (v_stored) of an acquisition, and the gap that they leave; where many are behind it,
    -- that stays until it has expired.
    DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM @table@ WHERE item_timestamp = v_item AND token = p_token AND units = 0
        OFFSET greatest(0, least(v_stored - v_units, @most_rows@) - 1)
    ));
    IF v_units < v_stored THEN
      UPDATE @table@ SET units = units - v_units
        WHERE seq = v_own AND token = p_token AND @numbered@ @mine@;
    ELSE
      DELETE FROM @table@ WHERE seq = v_own AND token = p_token AND @numbered@ @mine@;
    END IF;
    IF (SELECT count(*) < @most_behind@ FROM (
      SELECT FROM @table@ WHERE seq > v_own AND @numbered@ @mine@ LIMIT @most_behind@
    ) behind) THEN
      UPDATE @table@ SET seq = seq - v_units WHERE seq > v_own AND @numbered@ @mine@;
    END IF;
