"""What the runs of `compare` come to: medians, spread, and one recommendation or none."""

METRICS = ("seconds", "peak", "end")
NAMES = {"seconds": "time", "peak": "peak RSS", "end": "RSS at the end"}
WORTH = 0.05
"""A gain below this is none: of time, of peak, of memory at the end."""
HARM = 0.05
"""A loss from this on rules a configuration out."""
LEAST = 1 << 20
"""Bytes: gains of memory below this are none."""
ALIKE = 0.02
"""Two configurations within this are as good as each other; the simpler one wins."""


def median(values):
    """The middle one, or the mean of both."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def summary(runs):
    """Median and half of the range of each figure, over the runs that count."""
    found = {}
    for name in (*METRICS, "cpu", "faults"):
        values = [getattr(run, name) for run in runs]
        found[name] = {"median": median(values), "spread": (max(values) - min(values)) / 2}
    return found


class Effect:
    """One figure of a configuration against stock, round by round."""

    def __init__(self, name, stock, runs):
        pairs = [(getattr(s, name), getattr(r, name)) for s, r in zip(stock, runs)]
        self.name = name
        self.rounds = len(pairs)
        self.ratio = median([b / a for a, b in pairs if a] or [1.0])
        self.wins = sum(b < a for a, b in pairs)
        self.losses = sum(b > a for a, b in pairs)
        self.apart = max(b for _, b in pairs) < min(a for a, _ in pairs)
        gain = median([a - b for a, b in pairs])
        self.better = (
            self.ratio <= 1 - WORTH
            and self.losses <= self.rounds // 8
            and (name == "seconds" or gain >= LEAST)
        )

    def harms(self, limit=HARM):
        """Whether it is worse by more than ``limit``, and not by noise."""
        return self.ratio > 1 + limit and self.losses > self.rounds // 2

    def __str__(self):
        change = (self.ratio - 1) * 100
        return f"{NAMES[self.name]} {change:+.0f} %"


def judge(stock, configurations, slower=HARM):
    """The recommendation, as a dict: ``choice`` (or ``None``), ``sure``, ``because``,
    and why not each of the others.

    ``stock`` is a list of runs, ``configurations`` maps names to such lists, the simplest
    first, without those that failed.  ``slower`` is how much more time is acceptable.
    """
    candidates, others = [], {}
    for place, (name, runs) in enumerate(configurations.items()):
        effects = {metric: Effect(metric, stock, runs) for metric in METRICS}
        gains = [effect for effect in effects.values() if effect.better]
        harms = [e for e in effects.values() if e.harms(slower if e.name == "seconds" else HARM)]
        if harms:
            text = ", ".join(map(str, [*gains, *harms]))
            others[name] = f"ruled out: {text}"
        elif not gains:
            others[name] = "no difference that counts"
        else:
            score = 1.0
            for effect in effects.values():
                score *= effect.ratio
            candidates.append((score ** (1 / 3), place, name, gains))
    noise = noisy(stock)
    if not candidates:
        rounds = len(stock)
        sure = "sure" if rounds >= 5 and not noise else "not very sure"
        return {
            "choice": None,
            "sure": sure,
            "because": [f"no configuration is better by {WORTH:.0%} or more in anything without "
                        f"being worse in something else, in {rounds} round(s)", *noise],
            "others": others,
        }  # fmt: skip
    best = min(candidates)[0]
    alike = sorted((c for c in candidates if c[0] <= best + ALIKE), key=lambda c: c[1])
    score, _, choice, gains = alike[0]
    for one in candidates:
        if one[2] != choice:
            text = ", ".join(map(str, one[3]))
            others[one[2]] = f"{'as good' if one in alike else 'good too, but less'}: {text}"
    return {
        "choice": choice,
        "sure": sureness(gains),
        "because": [*(reason(effect) for effect in gains), *noise],
        "others": others,
    }


def reason(effect):
    """A gain in words, with what speaks for it."""
    text = f"{effect}, better in {effect.wins} of {effect.rounds} rounds"
    return text + (", worst run better than the best of stock" if effect.apart else "")


def sureness(gains):
    """How far chance is from explaining the gains: by rounds, and by overlap."""
    rounds = min(effect.rounds for effect in gains)
    won = all(effect.wins == effect.rounds for effect in gains)
    apart = all(effect.apart for effect in gains)
    if rounds >= 5 and won and apart:
        return "sure"
    if rounds >= 3 and won:
        return f"fairly sure: by chance in 1 of {2**rounds} such comparisons"
    return "a hint only: more rounds (-n) would tell"


def noisy(stock):
    """A warning if stock differs from itself by more than a gain has to be."""
    found = []
    for metric in METRICS:
        values = [getattr(run, metric) for run in stock]
        middle = median(values)
        if len(values) > 1 and middle and (max(values) - min(values)) / middle > 2 * WORTH:
            found.append(f"stock's own {NAMES[metric]} differs by "
                         f"{(max(values) - min(values)) / middle:.0%} between runs")  # fmt: skip
    return found
