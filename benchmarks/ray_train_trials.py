"""`distgan` with all trials of a search as runs of Ray Train, for comparison with those in Tune's actors."""

from __future__ import annotations

from distgan.cli.main import main
from distgan.search.ray.trial_resources import ResourceRequest

if __name__ == "__main__":
    ResourceRequest.in_actor = property(lambda request: False)  # type: ignore[method-assign,assignment]
    main()
