"""Where a trial plays: alone, whatever plays beside it."""

from __future__ import annotations

import itertools

from poolproof.drill.incidents import INCIDENTS
from poolproof.drill.stage import POOLS, Stage
from poolproof.drill.target import DRIVERS, Target


def test_no_two_trials_share_rows_or_sessions():
    trials = list(itertools.product(INCIDENTS, DRIVERS, POOLS, range(25)))
    tags = [
        Stage(
            target=Target.parse("postgresql://nobody@127.0.0.1/none"),
            driver=driver,
            pool=pool,
            table="poolproof_drill_0123456789ab",
            seed=0,
            trial=trial,
            incident=incident,
        ).tag
        for incident, driver, pool, trial in trials
    ]
    assert len(set(tags)) == len(trials)
    # The server cuts names off at 63, and an integration puts one behind.
    assert max(map(len, tags)) <= 52
    assert not any(
        a.startswith(f"{b}/") for a, b in itertools.permutations(tags[:300], 2)
    )
