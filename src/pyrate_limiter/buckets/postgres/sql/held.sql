SELECT at_ms, at_ms - token INTO v_held, v_since FROM @table@ WHERE @hold@;
    IF v_held <= v_now THEN  -- it is over
      DELETE FROM @table@ WHERE @hold@;
    ELSIF v_since > v_now THEN  -- the clock has stepped back: it begins anew
      v_held := v_held - v_since + v_now;
      UPDATE @table@ SET at_ms = v_held, item_timestamp = to_timestamp(v_held / 1000.0) WHERE @hold@;
    END IF;
