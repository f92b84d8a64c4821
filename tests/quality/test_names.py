from embedway.quality.names import REFUSING_CHECKS, WARNING_CHECKS


def test_a_check_refuses_or_warns():
    assert not set(REFUSING_CHECKS) & set(WARNING_CHECKS)
