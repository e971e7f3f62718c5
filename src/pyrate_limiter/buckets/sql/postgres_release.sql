-- Takes the units of one acquisition out again, and closes the gap in the numbers. Without a moment
-- it is one that was never answered; -2 where it can still come to be stored.
-- Answers [units, moment, clock].
DECLARE
  v_read bigint; v_first bigint; v_units bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN ARRAY[-1]::bigint[];
  END IF;
  LOCK TABLE @table@ IN ROW EXCLUSIVE MODE;
  PERFORM pg_advisory_xact_lock(p_lock);
  v_read := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  IF v_read <= p_expires THEN
    RETURN ARRAY[-2, NULL, v_read]::bigint[];
  END IF;
  IF NOT p_durable THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  WITH gone AS (
    DELETE FROM @table@ WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM @table@ WHERE token = p_token AND claimed_ms IS NOT NULL
      UNION
      (SELECT ctid FROM @table@ WHERE at_ms = p_moment AND name = p_name
        AND (token = p_token OR p_token IS NULL) ORDER BY seq DESC LIMIT p_weight)
      UNION
      SELECT ctid FROM @table@ WHERE p_moment IS NULL AND token = p_token
    )) RETURNING at_ms
  ) SELECT min(at_ms), count(*) INTO v_first, v_units FROM gone;
  IF v_units > 0 THEN
    @renumber@
  END IF;
  RETURN ARRAY[v_units, v_first, v_read]::bigint[];
END
