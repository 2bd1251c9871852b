"""The Python enrichment in a real workspace: what it does, and that code cannot get out of it."""

from tests.deploy.workspace_support import Workspace

UPPER = "def transform(value, row):\n    return value.strip().upper()\n"


def test_preview(enriched: Workspace) -> None:
    with enriched.as_role("editor") as client:
        r = client.get("/-/enrich/birds/happy/python")
        assert r.status_code == 200, r.text
        r = client.post(
            "/-/enrich/birds/happy/python",
            data={"code": UPPER, "column": "name", "output_column": "out", "preview": "1"},
        )
        assert r.status_code == 200, r.text
        print(r.text)
        assert "BIRD 5" in r.text
