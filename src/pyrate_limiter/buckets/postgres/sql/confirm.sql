-- The waiter of a reservation is awake: its units move to the true time, or to where they fit behind
-- those who were late.
DECLARE
  v_now bigint; v_stamp bigint; v_own bigint; v_units bigint; v_stored bigint; v_upto bigint; v_place bigint; v_item timestamp;
  v_read bigint; v_moment bigint; v_fits bigint; v_leaves bigint; v_failing int; v_first bigint; v_void text;
  v_held bigint; v_since bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    v_failing := @stale@;
    RETURN @answer@;
  END IF;
  @lock@
  v_read := @clock@;
  v_now := coalesce(p_now, v_read);
  SELECT at_ms, seq, units, item_timestamp INTO v_stamp, v_own, v_units, v_item FROM @table@
    WHERE token = p_token AND claimed_ms IS NOT NULL;
  IF v_stamp IS NULL THEN
    RETURN @answer@;
  END IF;

  @held@
  v_now := greatest(v_now, v_stamp);  -- its time has come, whatever the clock says
  v_moment := v_now;
  IF p_fixed AND NOT EXISTS (
    SELECT FROM unnest(p_rates[2:2]) width WHERE v_now - v_now % width <> v_stamp - v_stamp % width
  ) THEN
    v_moment := v_stamp;  -- whoever is late within the windows has not left them
  END IF;
  v_moment := greatest(v_moment, v_held);
  IF p_at IS NOT NULL THEN
    IF v_held > p_at OR p_digest <> (@digest@) THEN
      v_failing := @changed@;
      RETURN @answer@;
    END IF;
    v_moment := p_at;
  END IF;
  FOR k IN 1 .. CASE WHEN p_at IS NULL THEN @rounds@ ELSE 0 END LOOP
    -- Judged as if the log ended at that moment, with those who have gone; who is still to go is
    -- judged after it.
    SELECT seq + units - 1 INTO v_upto FROM @table@
      WHERE at_ms <= greatest(v_moment, v_now) AND units > 0 AND (claimed_ms IS NULL OR claimed_ms >= at_ms) @mine@
      ORDER BY at_ms DESC, seq DESC LIMIT 1;
    v_upto := greatest(v_upto, v_own + v_units - 1);
    v_fits := v_moment;
    FOR i IN 1 .. array_length(p_rates, 2) LOOP
      v_place := v_upto - p_limits[i];
      IF p_fixed THEN
        SELECT seq INTO v_first FROM @table@
          WHERE at_ms >= v_fits - v_fits % p_intervals[i] AND units > 0 @mine@ ORDER BY at_ms, seq LIMIT 1;
        v_place := v_place + CASE WHEN v_own < v_first THEN v_units ELSE 0 END;
        IF v_place >= v_first THEN
          v_failing := coalesce(v_failing, i);
          v_fits := v_fits - v_fits % p_intervals[i] + p_intervals[i];
        END IF;
        CONTINUE;
      END IF;
      IF v_place >= v_own THEN  -- the units themselves do not count
        v_place := v_place + v_units;
      END IF;
      SELECT @counts@ + p_intervals[i] + 1 INTO v_leaves FROM @table@ unit
        WHERE seq <= v_place AND @numbered@ @mine@ ORDER BY seq DESC LIMIT 1;
      IF v_leaves > v_moment THEN
        v_failing := coalesce(v_failing, i);
        v_fits := greatest(v_fits, v_leaves);
      END IF;
    END LOOP;
    EXIT WHEN v_fits = v_moment;
    v_moment := v_fits;
  END LOOP;

  v_void := CASE WHEN NOT p_durable THEN set_config('synchronous_commit', 'off', true) END;
  IF v_moment - v_now > p_max_wait THEN
    v_stored := v_units;
    @take_out@
    v_failing := coalesce(v_failing, 1);
    RETURN @answer@;
  END IF;
  IF p_fixed THEN  -- windows count what lies between two units, so all of them are in order
    SELECT seq + units - 1 INTO v_upto FROM @table@ WHERE at_ms <= v_moment AND units > 0 @mine@
      ORDER BY at_ms DESC, seq DESC LIMIT 1;
  END IF;
  IF (v_moment = v_now OR p_fixed) AND v_upto >= v_own + v_units THEN  -- others have gone before it
    UPDATE @table@ SET seq = seq - v_units WHERE seq > v_own AND seq <= v_upto AND @numbered@ @mine@;
    v_own := v_upto - v_units + 1;
  END IF;
  UPDATE @table@ SET at_ms = v_moment, item_timestamp = to_timestamp(v_moment / 1000.0), seq = v_own,
      claimed_ms = v_now  -- if that is its moment, it has gone
    WHERE token = p_token AND claimed_ms IS NOT NULL;
  IF v_units > 1 AND v_moment <> v_stamp THEN
    UPDATE @table@ SET item_timestamp = to_timestamp(v_moment / 1000.0)
      WHERE item_timestamp = v_item AND token = p_token AND units = 0;
  END IF;
  v_failing := 0;
  RETURN @answer@;
END
