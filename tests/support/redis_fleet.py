"""A fleet of processes on one Redis key. As a program it is one of them, also on an older release.

Arguments of a process, as JSON:
    url, key, limit, interval; burst: where it is given, GCRA with it in the place of a log;
    process: its name; shift: by how many ms its clock is off;
    threads or tasks: how many; calls: how many each of them makes, or seconds: for how long;
    blocking, reserve_ahead: as for a limiter;
    look: whether to look, after a refusal, how much room there is.
It prints "ready", begins when it is given a line, and prints the records of its calls by name.
Times of a record are seconds of the real clock: "sent"; "answered" when the answer was there, with
the moment "due" (ms) and the "wait" (ms) that it gave; "woke" after that wait; "went".
"""

import asyncio
import contextlib
import inspect
import json
import os
import subprocess
import sys
import threading
import time

real = time.time
DEFAULTS = {"shift": 0, "look": False, "reserve_ahead": True}


def run_fleet(processes, meanwhile=lambda: None):
    """Run a process for each pair of a Python and arguments; they begin together."""
    with contextlib.ExitStack() as stack:
        running = [
            _start(stack, python, {**DEFAULTS, "process": number, **given})
            for number, (python, given) in enumerate(processes)
        ]
        for process in running:
            assert process.stdout.readline() == "ready\n"
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        meanwhile()
        records = {}
        for process in running:
            records.update(json.loads(process.communicate(timeout=50)[0]))
            assert process.returncode == 0
        return records


def environment_of(python):
    """The variables of a process: one with a Python of another environment finds what is there."""
    own = python == sys.executable
    given = {name: value for name, value in os.environ.items() if own or name != "PYTHONPATH"}
    return {**given, "PYTHONWARNINGS": "default"}


def _start(stack, python, arguments):
    process = stack.enter_context(
        subprocess.Popen(
            [python, __file__, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_of(python),
        )
    )
    stack.callback(process.kill)
    return process


def spans(records):
    """Of each call that was admitted, the times between which it went, for certain."""
    return sorted(
        (record.get("woke", record["sent"]), record["went"])
        for record in records.values()
        if record["outcome"]
    )


def most_in_a_window(spans, seconds):
    """The largest number of calls that went within so long, for certain: (number, when)."""
    return max(
        (sum(1 for _, end in spans[at:] if end <= begin + seconds), begin)
        for at, (begin, _) in enumerate(spans)
    )


def overtaken(records):
    """Calls that were given an earlier moment than one that had its answer before they asked."""
    asked = sorted((r["sent"], r["due"], name) for name, r in records.items() if "due" in r)
    answered = sorted((r["answered"], r["due"]) for r in records.values() if "due" in r)
    latest, at, found = 0, 0, []
    for sent, due, name in asked:
        while at < len(answered) and answered[at][0] < sent:
            latest = max(latest, answered[at][1])
            at += 1
        if due < latest:
            found.append((name, due, latest))
    return found


def shift_clock(milliseconds):
    real_ns = time.time_ns
    time.time = lambda: real() + milliseconds / 1000
    time.time_ns = lambda: real_ns() + milliseconds * 1_000_000


def bucket_on(client, given):
    from pyrate_limiter import Rate, RedisBucket

    if "burst" in given:
        from pyrate_limiter import RedisStateStore, StateBucket

        rate = Rate(given["limit"], given["interval"], given["burst"])
        return StateBucket([rate], store=RedisStateStore(client, given["key"]))
    return RedisBucket.init([Rate(given["limit"], given["interval"])], client, given["key"])


def limiter_on(bucket, given, records):
    from pyrate_limiter import Limiter

    if "reserve_ahead" not in inspect.signature(Limiter).parameters:
        return Limiter(bucket)
    watch(bucket, records)
    return Limiter(bucket, reserve_ahead=given["reserve_ahead"])


def watch(bucket, records):
    """Note the answers to reservations, and when their waiters woke."""
    reserve, several, confirm = bucket.reserve, bucket.reserve_several, bucket.confirm

    def note(item, decision):
        wait = decision.wait_ms or decision.retry_after_ms or 0
        records[item.name].update(answered=real(), wait=wait)
        if decision.allowed:
            records[item.name]["due"] = item.timestamp
        return decision

    async def note_later(item, answer):
        return note(item, await answer)

    def watched_reserve(item, *terms, **more):
        answer = reserve(item, *terms, **more)
        return note_later(item, answer) if inspect.isawaitable(answer) else note(item, answer)

    async def note_all_later(items, answers):
        return [note(item, answer) for item, answer in zip(items, await answers)]

    def watched_several(items, *terms):
        answers = several(items, *terms)
        if inspect.isawaitable(answers):
            return note_all_later(items, answers)
        return [note(item, answer) for item, answer in zip(items, answers)]

    def watched_confirm(reservation, *terms):
        records[reservation.item.name]["woke"] = real()
        return confirm(reservation, *terms)

    bucket.reserve, bucket.confirm = watched_reserve, watched_confirm
    bucket.reserve_several = watched_several


def names(given, worker):
    """The names of the calls that a worker makes, for as long as it shall."""
    end = real() + given.get("seconds", 1000)
    number = 0
    while number < given.get("calls", 1 << 30) and real() < end:
        yield f"{given['process']}.{worker}.{number}"
        number += 1


def run_threads(given):
    import redis

    client, records = redis.Redis.from_url(given["url"]), {}
    limiter = limiter_on(bucket_on(client, given), given, records)

    def work(worker):
        for name in names(given, worker):
            record = records[name] = {"sent": real()}
            record["outcome"] = limiter.try_acquire(name, blocking=given["blocking"])
            record["went"] = real()
            if not record["outcome"]:
                if given["look"]:
                    record["room"] = given["limit"] - client.zcard(given["key"])
                time.sleep(0.002)

    threads = [threading.Thread(target=work, args=[n]) for n in range(given["threads"])]
    begin()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return records


async def run_tasks(given):
    import redis.asyncio

    client, records = redis.asyncio.Redis.from_url(given["url"]), {}
    bucket = bucket_on(client, given)
    bucket = await bucket if inspect.isawaitable(bucket) else bucket
    one_at_a_time = asyncio.Lock()  # a pool has no more than a hundred connections
    limiter = limiter_on(bucket, given, records)

    async def work(worker):
        for name in names(given, worker):
            record = records[name] = {"sent": real()}
            record["outcome"] = await limiter.try_acquire_async(name, blocking=given["blocking"])
            record["went"] = real()
            if not record["outcome"]:
                if given["look"]:
                    async with one_at_a_time:
                        record["room"] = given["limit"] - await client.zcard(given["key"])
                await asyncio.sleep(0.002)

    begin()
    await asyncio.gather(*(work(number) for number in range(given["tasks"])))
    await client.aclose()
    return records


def begin():
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    shift_clock(arguments["shift"])
    run = asyncio.run(run_tasks(arguments)) if "tasks" in arguments else run_threads(arguments)
    print(json.dumps(run))  # noqa: T201
