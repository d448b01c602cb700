from .running import write_counts


def pytest_sessionfinish():
    write_counts()
