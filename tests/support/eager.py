"""Tasks that begin before whoever makes them goes on, on every Python."""

import asyncio
import sys
import types


@types.coroutine
def _rest(coroutine, first):
    """Go on with a coroutine that waits for ``first`` already."""
    waits_for = first
    while True:
        try:
            answer = yield waits_for
        except BaseException as error:  # noqa: BLE001 - a cancellation is its affair too
            step = coroutine.throw, error
        else:
            step = coroutine.send, answer
        try:
            waits_for = step[0](step[1])
        except StopIteration as done:
            return done.value


def _task_factory(loop, coroutine, **options):
    """As `asyncio.eager_task_factory` of Python 3.12."""
    outcome, first = loop.create_future(), []

    async def whole():
        return await _rest(coroutine, first[0]) if first else await outcome

    task = asyncio.Task(whole(), loop=loop, **options)
    creator = asyncio.current_task(loop)
    if creator is not None:
        asyncio.tasks._leave_task(loop, creator)
    asyncio.tasks._enter_task(loop, task)
    try:
        first.append(coroutine.send(None))
    except StopIteration as done:
        outcome.set_result(done.value)
    except BaseException as error:  # noqa: BLE001 - as a task does
        outcome.set_exception(error)
    finally:
        asyncio.tasks._leave_task(loop, task)
        if creator is not None:
            asyncio.tasks._enter_task(loop, creator)
    return task


if sys.version_info >= (3, 12):
    eager_task_factory = asyncio.eager_task_factory
else:
    eager_task_factory = _task_factory
