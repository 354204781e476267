"""How many threads do a step: measured while it runs, and looked at again now and then."""

from __future__ import annotations

import math

# Runs that an average is taken of: as many as let it be known to so much (its standard error), within these seconds.
# Beside a busy program, the times of single runs differ by a factor of ten.
_KNOWN_TO, _SHORTEST_WINDOW, _LONGEST_WINDOW, _FEWEST_RUNS = 0.04, 0.02, 0.25, 4
# Another number has to be better by so much; one that is worse by so much is not tried to the end.
_BETTER, _HOPELESS = 0.97, 1.25
# Averages that differ by so much from those before say that something else on the machine began or ended.
_CHANGED = 1.5
# Seconds from one trial to the next, doubled after each that changed nothing; at least so many times those of a trial,
# and after a change so many.
_SHORTEST_WAIT, _LONGEST_WAIT, _WAIT_PER_TRIAL, _WAIT_AFTER_CHANGE = 0.1, 2.0, 20, 2


class ThreadChoice:
    """Chooses by the times of what is run again and again: from all threads on, by halves and doubles.

    The bits of what is run do not depend on the number, so it may change at any time. Alone, a step is fastest with as
    many threads as there are cores, or with fewer where it is small; beside a busy program, threads that wait for one
    another can take four times as long as one that waits for none.

    Parameters
    ----------
    most : int

    Attributes
    ----------
    threads : int
        What to run with next.
    """

    def __init__(self, most: int) -> None:
        self._counts = [most]
        while self._counts[0] > 1:
            self._counts.insert(0, self._counts[0] // 2)
        self._place = self._tried = len(self._counts) - 1
        self._direction = -1
        self._wait, self._waited, self._spent = -1.0, 0.0, 0.0
        self._average = self._usual = 0.0
        self._seconds, self._squares, self._runs = 0.0, 0.0, 0

    @property
    def threads(self) -> int:
        """What to run with next."""
        return self._counts[self._tried]

    def note(self, seconds: float) -> None:
        """Take notice of a run with ``threads``.

        Parameters
        ----------
        seconds : float
        """
        if len(self._counts) == 1:
            return
        self._seconds += seconds
        self._runs += 1
        self._squares += seconds * seconds
        average = self._seconds / self._runs
        error = math.sqrt(max(self._squares / self._runs - average**2, 0.0) / max(self._runs - 1, 1))
        is_trial = self._tried != self._place
        is_hopeless = is_trial and self._runs > 1 and average - 2 * error > _HOPELESS * self._average
        is_enough = self._runs >= _FEWEST_RUNS and self._seconds >= _SHORTEST_WINDOW
        is_known = is_enough and error < _KNOWN_TO * average
        is_slower = is_enough and not is_trial and average - 2 * error > _CHANGED * self._usual > 0
        is_over = self._runs > 1 and self._seconds >= _LONGEST_WINDOW
        if not (is_hopeless or is_known or is_slower or is_over):
            return
        spent, self._seconds, self._squares, self._runs = self._seconds, 0.0, 0.0, 0
        if is_trial:
            self._end_trial(average, spent)
            return
        if self._wait < 0:  # these were the first runs
            self._wait = max(_SHORTEST_WAIT, _WAIT_PER_TRIAL * average)
        self._average, self._usual = average, self._usual or average
        self._waited += spent
        if not 1 / _CHANGED < average / self._usual < _CHANGED:
            self._usual, self._wait = average, min(self._wait, max(_SHORTEST_WAIT, _WAIT_AFTER_CHANGE * self._spent))
        if self._waited >= self._wait:
            if not 0 <= self._place + self._direction < len(self._counts):
                self._direction = -self._direction
            self._tried = self._place + self._direction

    def _end_trial(self, average: float, spent: float) -> None:
        self._waited, self._spent = 0.0, spent
        if average < _BETTER * self._average:
            self._place, self._average, self._usual = self._tried, average, average
            if 0 <= self._place + self._direction < len(self._counts):
                self._wait = 0.0  # further in this direction
                return
        self._tried, self._direction = self._place, -self._direction
        longer = min(max(2 * self._wait, _SHORTEST_WAIT), _LONGEST_WAIT)
        self._wait = max(longer, _WAIT_PER_TRIAL * spent)
