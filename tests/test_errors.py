import pytest

from inceptionnext_seg.errors import SettingError, UserError, exit_on_user_error


@pytest.mark.parametrize(('raised', 'code', 'said'), [
    (UserError('no such thing'), 2, 'error: no such thing\n'), (SettingError('arch is 5'), 2, 'error: arch is 5\n'),
    (KeyboardInterrupt(), 130, 'interrupted\n')])
def test_what_a_user_caused_is_one_line_and_an_exit_code(capsys, raised, code, said):
    @exit_on_user_error
    def main():
        raise raised

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == code
    assert capsys.readouterr().err == said


def test_a_defect_keeps_its_traceback():
    defect = ValueError('a defect')

    @exit_on_user_error
    def main():
        raise defect

    with pytest.raises(ValueError) as raised:
        main()
    assert raised.value is defect


def test_a_tool_keeps_its_arguments_and_its_return_value():
    @exit_on_user_error
    def main(a, b=2):
        return a, b

    assert main(1, b=3) == (1, 3)


def test_a_wrong_setting_is_a_value_error_for_callers_from_python():
    with pytest.raises(ValueError, match=r'arch is 5'):
        raise SettingError('arch is 5')
