-- Takes units out again, all but so many (p_weight). One that was never answered is looked for
-- between two moments; -2 where it can still come to be stored. Answers [units, clock].
DECLARE
  v_read bigint; v_own bigint; v_units bigint; v_place bigint; v_item timestamp; v_void text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN ARRAY[-1]::bigint[];
  END IF;
  v_void := set_config('lock_timeout', p_lock_ms::text, true);
  LOCK TABLE @table@ IN ROW EXCLUSIVE MODE;
  v_void := pg_advisory_xact_lock(p_lock);
  v_read := floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;
  IF v_read <= p_expires THEN
    RETURN ARRAY[-2, v_read]::bigint[];
  END IF;
  IF NOT p_durable THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  SELECT seq, units, item_timestamp INTO v_own, v_units, v_item FROM @table@
    WHERE token = p_token AND claimed_ms IS NOT NULL;
  IF v_own IS NULL THEN
    SELECT seq, units, item_timestamp INTO v_own, v_units, v_item FROM @table@
      WHERE at_ms BETWEEN p_since AND p_until AND units > 0 AND token = p_token @mine@;
  END IF;
  v_place := greatest(0, v_units - p_weight);
  IF v_place > 0 THEN
    @take_out@
  END IF;
  RETURN ARRAY[v_place, v_read]::bigint[];
END
