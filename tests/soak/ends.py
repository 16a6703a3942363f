"""How downloads ended, by what they said of it."""

import collections
import re


class Ends:
    """Counts ends by status and by what was said, in which only kinds of things matter: not which block, port or path."""

    def __init__(self):
        self.by_status = collections.Counter()
        self.by_words = collections.Counter()

    def note(self, status, said):
        self.by_status[status] += 1
        if status > 0:
            self.by_words[status, words(said)] += 1

    def summary(self):
        """All of them in a few words."""
        return ", ".join(f"{count} with {status}" for status, count in sorted(self.by_status.items()))

    def lines(self):
        """A line for each kind of end that was an error, the most frequent first."""
        for (status, said), count in self.by_words.most_common():
            yield f"{count:6} with {status}: {said}"


def words(said):
    """What a program gave as its errors, each kind once."""
    errors = [line.partition("cascade: ")[2] for line in said.splitlines() if "cascade: cannot " in line]
    return "; ".join(sorted({kind(error) for error in errors}))


def kind(error):
    """Without the numbers and directories of one error."""
    error = re.sub(r"\S*/(?=\w)", "", error)
    return re.sub(r"\d+", "N", error)
