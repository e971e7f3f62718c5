v_void := set_config('lock_timeout', p_limit::text, true);
  -- Programs on 4.5.1 lock the whole table exclusively; each bucket of ours has a lock of its own.
  LOCK TABLE @table@ IN ROW EXCLUSIVE MODE;
  v_void := pg_advisory_xact_lock(p_lock);
