import pytest

from inceptionnext_seg.errors import UserError, exit_on_user_error


@pytest.mark.parametrize(('raised', 'code', 'said'), [
    (UserError('no such thing'), 2, 'error: no such thing\n'), (KeyboardInterrupt(), 130, 'interrupted\n')])
def test_what_a_user_caused_is_one_line_and_an_exit_code(capsys, raised, code, said):
    @exit_on_user_error
    def main():
        raise raised

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == code
    assert capsys.readouterr().err == said


def test_a_defect_keeps_its_traceback():
    @exit_on_user_error
    def main():
        raise ValueError('a defect')

    with pytest.raises(ValueError, match='a defect'):
        main()
