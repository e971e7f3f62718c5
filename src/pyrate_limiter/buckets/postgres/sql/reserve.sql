-- One acquisition: stores the units now, or at a moment within the caller's patience, or not at all.
--
-- The units of an acquisition are one row with all that is known of them, and `units - 1` others for
-- programs on 4.5.1, which count rows. Under the bucket's lock, units are numbered (seq is the first
-- of an acquisition) in the order of their time (at_ms). So the unit that has to leave first is found
-- by its number, whatever the number of live units.
--
-- PL/pgSQL prepares each expression anew in each transaction, which costs more than to evaluate it:
-- hence few of them, and one question whether anything is unusual.
DECLARE
  v_read bigint; v_clock bigint; v_now bigint; v_deadline bigint; v_behind bigint;
  v_last bigint; v_newest bigint; v_latest bigint; v_void text;
  v_fits bigint; v_leaves bigint; v_moment bigint; v_place bigint; v_cap bigint; v_upto bigint;
  v_failing int; v_first bigint; v_remaining bigint; v_swept bigint; v_bound bigint;
  v_held bigint; v_since bigint; v_numbers bigint[]; v_ends bigint[]; v_times bigint[]; v_count int;
BEGIN
  @lock@
  -- What 4.5.1 has written has no number, nor has a hold: both come first here.
  SELECT seq + units - 1, at_ms INTO v_last, v_newest
    FROM @table@ WHERE @numbered@ @mine@ ORDER BY seq DESC LIMIT 1;
  v_read := @clock@;
  v_now := v_read;

  IF v_last IS NULL OR v_newest > v_read OR v_read > p_expires OR p_unusual
    OR current_setting('transaction_isolation') <> 'read committed'
  THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      v_failing := @stale@;
      RETURN @answer@;
    END IF;
    IF v_read > p_expires THEN
      v_failing := @expired@;
      RETURN @answer@;
    END IF;
    v_clock := coalesce(p_clock, v_read);
    v_now := coalesce(p_now, v_clock);
    @adopt@
    IF p_again THEN  -- the answer to the first try was lost: did it store anything?
      SELECT at_ms INTO v_moment FROM (
        (SELECT at_ms FROM @table@ WHERE token = p_token AND claimed_ms IS NOT NULL)
        UNION ALL
        (SELECT at_ms FROM @table@ WHERE at_ms >= p_since AND units > 0 AND token = p_token @mine@)
      ) found LIMIT 1;
      IF v_moment IS NOT NULL THEN
        v_now := least(v_clock, v_moment);
        RETURN @answer@;
      END IF;
    END IF;
    SELECT seq + units - 1, at_ms, coalesce(claimed_ms, at_ms) INTO v_last, v_newest, v_latest
      FROM @table@ WHERE @numbered@ AND seq IS NOT NULL @mine@ ORDER BY seq DESC LIMIT 1;
    v_last := coalesce(v_last, 0);
    v_behind := v_latest - v_now;
    IF v_behind > 0 THEN
      IF v_behind <= p_intervals[1] OR v_clock BETWEEN v_latest AND v_latest + @late_ms@ THEN
        v_now := v_latest;  -- an older stamp arrived second: it is the newest all the same
      ELSE  -- the clock has stepped back, and takes the log with it
        UPDATE @table@ SET at_ms = at_ms - v_behind, claimed_ms = claimed_ms - v_behind,
          item_timestamp = item_timestamp - v_behind * interval '1 millisecond'
          WHERE @no_note@ @mine@;
        v_newest := v_newest - v_behind;
      END IF;
    END IF;
    @held@
    IF v_held > v_now THEN
      v_remaining := 0;
    END IF;
    IF p_at IS NOT NULL THEN
      IF v_held > p_at OR p_digest <> (@digest@) THEN
        v_failing := @changed@;
        RETURN @answer@;
      END IF;
      SELECT seq INTO v_place FROM @table@ WHERE at_ms > p_at AND units > 0 @mine@ ORDER BY at_ms, seq LIMIT 1;
      v_place := coalesce(v_place, v_last + 1);
    END IF;
    -- What the line holds is among what is stored, also where the clock has stepped back since.
    v_fits := coalesce(p_at, greatest(v_now, v_held,
      CASE WHEN p_not_before IS NOT NULL THEN least(p_not_before, v_newest) END));
    IF v_newest > v_fits AND p_weight > 0 AND p_max_wait > 0 AND NOT p_fixed THEN
      @between@
    END IF;
  END IF;

  IF v_place IS NOT NULL THEN
    NULL;  -- it fits before others
  ELSIF p_weight > 0 AND NOT p_fixed THEN
    v_fits := greatest(v_now, v_held, v_newest);
    FOR i IN 1 .. array_length(p_rates, 2) LOOP
      IF v_last + p_weight > p_limits[i] THEN
        SELECT @counts@ + p_intervals[i] + 1 INTO v_leaves FROM @table@ unit
          WHERE seq <= v_last + p_weight - p_limits[i] AND @numbered@ @mine@
          ORDER BY seq DESC LIMIT 1;
        IF v_leaves > v_fits THEN
          v_failing := coalesce(v_failing, i);
          v_fits := v_leaves;
        END IF;
      END IF;
    END LOOP;
  ELSIF p_weight > 0 THEN
    @windows@
  ELSE
    v_fits := v_now;
  END IF;
  v_moment := v_fits;
  IF v_fits > v_now THEN
    v_failing := coalesce(v_failing, 1);
    v_deadline := p_max_wait + CASE WHEN p_now IS NULL AND p_clock IS NULL
      -- The wait for the lock is part of the caller's time.
      THEN @begun@ ELSE v_now
    END;
    IF p_store AND v_fits <= v_deadline AND (v_newest IS NULL OR v_fits > v_newest) THEN
      v_moment := greatest(
        v_fits, least(v_fits + coalesce(p_buffer, p_pads[v_failing]), v_deadline)
      );
    END IF;
  END IF;

  IF p_store AND v_fits <= greatest(v_now, v_deadline) THEN
    IF v_place IS NOT NULL THEN
      UPDATE @table@ SET seq = seq + p_weight WHERE seq >= v_place AND @numbered@ @mine@;
    END IF;
    v_void := CASE WHEN NOT p_durable THEN set_config('synchronous_commit', 'off', true) END;
    INSERT INTO @table@ (name, weight, item_timestamp, at_ms, seq, units, claimed_ms, token, key)
      VALUES (
        p_name, least(p_weight, @most_weight@), to_timestamp(v_moment / 1000.0), v_moment,
        coalesce(v_place, v_last + 1), p_weight, CASE WHEN v_moment > v_now THEN v_now END, p_token,
        @key@
      ) RETURNING greatest(v_newest, at_ms), v_last + p_weight, 0 INTO v_newest, v_last, v_failing;
    IF p_weight > 1 THEN
      INSERT INTO @table@ (name, weight, item_timestamp, units, token, key)
        SELECT left(p_name, @longest_name@), least(p_weight, @most_weight@), to_timestamp(v_moment / 1000.0), 0, p_token,
          @key@
        FROM generate_series(2, least(p_weight, @most_rows@));
    END IF;
    @clean@
  END IF;

  IF p_look THEN
    FOR i IN 1 .. array_length(p_rates, 2) LOOP
      v_remaining := least(v_remaining, greatest(0, p_limits[i] - coalesce(v_last + 1 - (
        SELECT seq FROM @table@ WHERE at_ms >= v_now
          - CASE WHEN p_fixed THEN v_now % p_intervals[i] ELSE p_intervals[i] END
          AND units > 0 @mine@
        ORDER BY at_ms, seq LIMIT 1
      ), 0)));
    END LOOP;
  END IF;
  RETURN @answer@;
END
