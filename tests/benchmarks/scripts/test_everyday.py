import pytest

from benchmarks.networks.everyday import NETWORKS
from benchmarks.scripts.everyday import JOBS, row


@pytest.mark.parametrize("network", NETWORKS)
def test_every_job_works_on_networks_that_people_have(network):
    cells = row(network)
    assert cells.keys() == JOBS.keys()
    assert not [cell for cell in cells.values() if "Error" in cell]
