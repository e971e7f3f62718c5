-- The holder of a claim is awake. Its units stay where they are, if it is no later than its slack
-- allows and nobody before it was; else they move to the true time, or to where they fit behind those
-- who were late. Answers [verdict, moment, failing rate, now, whether they have moved, clock].
DECLARE
  v_now bigint; v_stamp bigint; v_own bigint; v_upto bigint; v_place bigint;
  v_read bigint; v_moment bigint; v_fits bigint; v_leaves bigint; v_failing int; v_first bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN ARRAY[-1]::bigint[];
  END IF;
  LOCK TABLE @table@ IN ROW EXCLUSIVE MODE;
  PERFORM pg_advisory_xact_lock(p_lock);
  v_read := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  v_now := coalesce(p_now, v_read);
  SELECT at_ms, seq INTO v_stamp, v_own FROM @table@
    WHERE token = p_token AND claimed_ms IS NOT NULL ORDER BY seq DESC LIMIT 1;
  IF v_stamp IS NULL THEN
    RETURN ARRAY[1, NULL, 0, v_now, 0, v_read]::bigint[];
  END IF;

  v_now := greatest(v_now, v_stamp);  -- its time has come, whatever the clock says
  v_moment := CASE WHEN v_now - v_stamp <= p_slack THEN v_stamp ELSE v_now END;
  FOR k IN 1 .. 64 LOOP
    -- Judged as if the log ended at that moment: what is stored behind it comes after.
    SELECT seq INTO v_upto FROM @table@
      WHERE at_ms <= v_moment @mine@ ORDER BY at_ms DESC, seq DESC LIMIT 1;
    v_fits := v_moment;
    FOR i IN 1 .. array_length(p_rates, 2) LOOP
      IF p_fixed THEN
        SELECT seq INTO v_first FROM @table@
          WHERE at_ms >= v_fits - v_fits % p_intervals[i] @mine@ ORDER BY at_ms, seq LIMIT 1;
        v_place := v_upto - v_first + 1;
        IF v_own <= v_upto AND v_own >= v_first THEN
          v_place := v_place - p_weight;
        END IF;
        IF v_place + p_weight > p_limits[i] THEN
          v_failing := coalesce(v_failing, i);
          v_fits := v_fits - v_fits % p_intervals[i] + p_intervals[i];
        END IF;
        CONTINUE;
      END IF;
      v_place := v_upto - p_limits[i];
      IF v_place > v_own - p_weight THEN  -- the units themselves do not count
        v_place := v_place + p_weight;
      END IF;
      SELECT at_ms + p_intervals[i] + 1 INTO v_leaves FROM @table@
        WHERE seq <= v_place @mine@ ORDER BY seq DESC LIMIT 1;
      IF v_leaves > v_moment THEN
        v_failing := coalesce(v_failing, i);
        v_fits := greatest(v_fits, v_leaves);
      END IF;
    END LOOP;
    EXIT WHEN v_fits = v_moment;
    v_moment := v_fits;
  END LOOP;

  IF v_moment = v_stamp THEN
    RETURN ARRAY[1, v_stamp, 0, v_now, 0, v_read]::bigint[];
  END IF;
  IF NOT p_durable THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  v_first := v_stamp;
  IF v_moment - v_now > p_patience THEN
    DELETE FROM @table@ WHERE token = p_token AND claimed_ms IS NOT NULL;
    @renumber@
    RETURN ARRAY[0, v_moment, coalesce(v_failing, 1), v_now, 1, v_read]::bigint[];
  END IF;
  UPDATE @table@ SET at_ms = v_moment, item_timestamp = to_timestamp(v_moment / 1000.0),
      claimed_ms = coalesce(p_now, v_read)  -- the clock that a later step back is told by
    WHERE token = p_token AND claimed_ms IS NOT NULL;
  @renumber@
  RETURN ARRAY[1, v_moment, 0, v_now, 1, v_read]::bigint[];
END
