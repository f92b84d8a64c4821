"""Files of SQLite: many open a new one at once."""

import threading

from embedway import sqlite


def test_many_open_a_new_file_at_once(tmp_path):
    for number in range(10):
        start = threading.Barrier(8)
        failed = []

        def work(path=tmp_path / "sub" / f"{number}.sqlite", start=start, failed=failed):
            start.wait()
            try:
                sqlite.connect(path, schema="CREATE TABLE IF NOT EXISTS t (x)").close()
            except Exception as error:  # noqa: BLE001  the test reports it
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
