import functools
import os
import threading

import pytest

from skact.cached import cached_property


class Slow:
    def __init__(self, decorator):
        self.times, self.entered, self.go = 0, threading.Event(), threading.Event()
        self.decorator = decorator

    def compute(self):
        self.times += 1
        self.entered.set()
        self.go.wait()
        return 3


def property_of(decorator):
    made = decorator(lambda self: self.compute())
    made.__set_name__(Slow, "value")
    return made


def test_it_is_computed_once():
    thing, value = Slow(None), property_of(cached_property)
    thing.go.set()
    assert value.__get__(thing) == value.__get__(thing) == thing.value == 3
    assert thing.times == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_thread_that_computes_one():
    import signal
    import sys

    def rc_of_child(decorator):
        value, thing, other = property_of(decorator), Slow(None), Slow(None)
        other.go.set()
        thread = threading.Thread(target=value.__get__, args=(thing,))
        thread.start()
        thing.entered.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(2)
            os._exit(0 if value.__get__(other) == 3 else 1)
        thing.go.set()
        thread.join()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert rc_of_child(cached_property) == 0
    if sys.version_info < (3, 12):  # whose own waits, which is why there is another
        assert rc_of_child(functools.cached_property) == -signal.SIGALRM
