"""What is passed by mistake is refused at the door, by its name; without the tests' own checks of types."""

import json
import subprocess
import sys

CASES = {
    "laconic.prune_(net(), 90)": "amount: expected a fraction removed, within [0, 1], found 90; 90 % is 0.9",
    "laconic.prune_(net(), 0.5, 'magnitude')": "criterion: expected one of laconic.pruning.criteria, found 'magnitude'",
    "Pruner(criterion='taylor')": "criterion: expected one of laconic.pruning.criteria, found 'taylor'",
    "laconic.prune_(net(), 0.5, scope='row')": "scope: expected a Scope, found 'row'",
    "laconic.prune_(net(), 0.5, scope=scopes.PerRow)": "scope: expected a Scope, found the class PerRow; PerRow()?",
    "laconic.prune_(net(), 0.5, unit=4)": "unit: expected a Unit, found 4",
    "laconic.prune_(net(), 0.5, solver='obs')": "solver: expected a Solver, found 'obs'",
    "Pruner(budget=0.5)": "budget: expected a Budget, found 0.5",
    "laconic.save(net(), 'x.lac', 0.1)": "quantizer: expected a Quantizer, found 0.1; Grid(0.1)?",
    "laconic.load('x.lac', zoo.blobs_net)": "into: expected a Module, found <function blobs_net",
    "laconic.train(net(), batches, 3)": "training: expected a Training, found 3; Training(epochs)?",
    "laconic.train('net', batches, laconic.Training(1))": "model: expected a Module, found 'net'",
    "laconic.evaluate('net.lac', batches)": "model: expected a Module, found 'net.lac'",
    "laconic.compress(net(), batches, 'x.lac', 0.01)": "target: expected a Target, found 0.01; MaxDrop(0.01)?",
    "laconic.compress(net(), batches, 'x.lac', finetune=3)": "finetune: expected a Training, found 3; Training(5)?",
    "laconic.compress(zoo.blobs_net, batches, 'x.lac')": "model: expected a Module, found <function blobs_net",
    "laconic.hold(laconic.prune_(net(), 0.5), net(), None)": "optimizer: expected one of PyTorch's, found none",
    "laconic.attach('hold', net(), sgd())": "rule: expected a Rule, found 'hold'",
}
SCRIPT = """
import json, sys
import torch
import laconic
from laconic import zoo
from laconic.pruning import Pruner, scopes

net = zoo.blobs_net
batches = [(torch.zeros(3, 20), torch.tensor([0, 1, 2]))]
sgd = lambda: torch.optim.SGD(net().parameters(), lr=0.1)
found = {}
for case in json.loads(sys.argv[1]):
    try:
        found[case] = repr(eval(case))
    except ValueError as error:
        found[case] = str(error)
print(json.dumps(found))
"""


def test_what_is_no_such_thing_is_refused_by_name(tmp_path):
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(CASES))]
    found = json.loads(subprocess.check_output(command, cwd=tmp_path, text=True))
    assert {case: message[: len(CASES[case])] for case, message in found.items()} == CASES
    assert not list(tmp_path.iterdir())
