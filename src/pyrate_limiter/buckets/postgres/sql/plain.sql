-- One acquisition on a table that has only the columns of 4.5.1, for a role that may not add ours:
-- stores the units now or not at all.
DECLARE
  v_read bigint; v_clock bigint; v_now bigint; v_newest bigint; v_start bigint; v_leaves bigint; v_moment bigint;
  v_failing int; v_count bigint; v_remaining bigint; v_bound bigint; v_swept bigint; v_held bigint; v_void text;
BEGIN
  @lock@
  v_read := @clock@;
  IF v_read > p_expires THEN
    v_failing := @expired@;
    RETURN @answer@;
  END IF;
  v_clock := coalesce(p_clock, v_read);
  v_now := coalesce(p_now, v_clock);
  SELECT @stored_ms@ INTO v_newest
    FROM @table@ WHERE true @mine@ ORDER BY item_timestamp DESC LIMIT 1;
  IF v_newest > v_now THEN
    IF v_newest - v_now <= p_intervals[1] OR v_clock BETWEEN v_newest AND v_newest + @late_ms@ THEN
      v_now := v_newest;
    ELSE
      WITH gone AS (DELETE FROM @table@ WHERE @no_note@ @mine@ RETURNING name, weight, item_timestamp)
        INSERT INTO @table@ (name, weight, item_timestamp) SELECT name, weight,
          item_timestamp - (v_newest - v_now) * interval '1 millisecond' FROM gone;
      v_newest := v_now;
    END IF;
  END IF;
  IF p_at IS NOT NULL AND p_digest <> (@digest@) THEN
    v_failing := @changed@;
    RETURN @answer@;
  END IF;
  v_moment := v_now;
  IF p_weight > 0 AND p_at IS NULL THEN
    FOR i IN 1 .. array_length(p_rates, 2) LOOP
      v_start := CASE WHEN p_fixed THEN v_moment - v_moment % p_intervals[i] ELSE v_now - p_intervals[i] END;
      SELECT @stored_ms@ INTO v_leaves
        FROM @table@ WHERE item_timestamp >= to_timestamp(v_start / 1000.0) @mine@
        ORDER BY item_timestamp DESC OFFSET p_limits[i] - p_weight LIMIT 1;
      IF v_leaves IS NOT NULL THEN
        v_leaves := CASE WHEN p_fixed THEN v_start ELSE v_leaves + 1 END + p_intervals[i];
        IF v_leaves > v_now THEN
          v_failing := coalesce(v_failing, i);
          v_moment := greatest(v_moment, v_leaves);
        END IF;
      END IF;
    END LOOP;
  END IF;
  IF p_store AND v_failing IS NULL THEN
    v_void := CASE WHEN NOT p_durable THEN set_config('synchronous_commit', 'off', true) END;
    INSERT INTO @table@ (name, weight, item_timestamp)
      SELECT p_name, least(p_weight, @most_weight@), to_timestamp(v_now / 1000.0)
      FROM generate_series(1, p_weight);
    v_newest := v_now;
    IF random() * @clean_each@ < p_weight THEN
      @bound@
      DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM @table@ WHERE item_timestamp < to_timestamp(v_bound / 1000.0) AND @no_note@
        ORDER BY item_timestamp DESC OFFSET @left@ LIMIT @left@ + 2 * p_weight
      ));
    END IF;
  END IF;
  IF p_look THEN
    FOR i IN 1 .. array_length(p_rates, 2) LOOP
      SELECT count(*) INTO v_count FROM @table@
        WHERE item_timestamp >= to_timestamp((
          v_now - CASE WHEN p_fixed THEN v_now % p_intervals[i] ELSE p_intervals[i] END
        ) / 1000.0) @mine@;
      v_remaining := least(v_remaining, greatest(0, p_limits[i] - v_count));
    END LOOP;
  END IF;
  RETURN @answer@;
END
