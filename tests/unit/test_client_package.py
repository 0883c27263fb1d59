import subprocess
import sys
from types import ModuleType

import penchant
from penchant import _requests
from penchant._requests import Method
from penchant._rpcs import BY_NAME, BY_REQUEST


def test_all_lists_exactly_the_public_names() -> None:
    public = {
        name for name, value in vars(penchant).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(penchant.__all__) == public
    assert len(penchant.__all__) == len(set(penchant.__all__))


def test_importing_the_client_loads_none_of_the_servers_weight() -> None:
    code = (
        "import sys, penchant;"
        "heavy = {'torch', 'chromadb', 'numpy', 'sqlalchemy', 'sentence_transformers', 'penchant_pipelines'};"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_both_clients_offer_the_same_methods() -> None:
    def methods(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert methods(penchant.Client) == methods(penchant.AsyncClient)


def test_clients_take_their_methods_names_and_docs_from_the_requests() -> None:
    for name, value in vars(_requests).items():
        if isinstance(value, Method):
            for client in (penchant.Client, penchant.AsyncClient):
                method = getattr(client, name)
                assert method.__name__ == name
                assert method.__doc__
                assert method.__doc__ == value.request.__doc__


def test_every_call_of_the_contract_is_known_by_name_and_by_request() -> None:
    assert len(BY_NAME) == len(BY_REQUEST) == 34
    assert BY_NAME["GetProfile"].path == "/penchant.v1.InterestService/GetProfile"
    assert BY_NAME["StreamCapture"].client_streaming
    assert not BY_NAME["WatchProfiles"].client_streaming
    assert BY_NAME["WatchProfiles"].server_streaming
