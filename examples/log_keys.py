"""Log keyboard and mouse while OBS records: python log_keys.py FOLDER. Needs `pip install pynput`."""

import sys

from event_log import EventLog, arguments

NAMED = ("space", "tab", "enter", "backspace", "caps_lock", "up", "down", "left", "right")
KEYS = {name: f"key_{name}" for name in (*NAMED, *(f"f{number}" for number in range(1, 13)))}
KEYS |= {"shift": "key_left_shift", "shift_l": "key_left_shift", "ctrl": "key_left_ctrl",
         "ctrl_l": "key_left_ctrl", "alt": "key_left_alt", "alt_l": "key_left_alt",
         "esc": "key_escape"}  # fmt: skip
SHIFTED = dict(zip("!@#$%^&*()", "1234567890", strict=True))  # of a US keyboard
BUTTONS = {"left": "mouse_left", "right": "mouse_right", "middle": "mouse_middle", "x1": "mouse_back",
           "x2": "mouse_forward", "button8": "mouse_back", "button9": "mouse_forward"}  # fmt: skip


def key_name(key):
    """What the action space `keyboard_mouse` calls a key; None for one that it does not have."""
    letter = getattr(key, "char", None)
    if not letter:
        return KEYS.get(getattr(key, "name", None))
    letter = chr(ord(letter) + 96) if ord(letter) < 27 else letter.lower()  # Ctrl+W is W, too
    letter = SHIFTED.get(letter, letter)
    return f"key_{letter}" if letter.isascii() and letter.isalnum() else None


class Pointer:
    """Logs how far the mouse pointer went, not where it is."""

    def __init__(self, log):
        self.log, self.at = log, None
        log.move(mouse_dx=0, mouse_dy=0, wheel=0)  # the log starts here

    def move(self, x, y):
        """The pointer is here now, in pixels."""
        from_x, from_y = self.at or (x, y)
        self.log.move(mouse_dx=x - from_x, mouse_dy=y - from_y)
        self.at = x, y


def main():
    """Log everything until Ctrl+C is pressed."""
    given = arguments(__doc__)
    try:
        from pynput import keyboard, mouse
    except ImportError as error:
        sys.exit(f"log_keys.py needs a desktop and pynput (pip install pynput): {error}")
    log = EventLog(given.folder, given.offset_ms)
    keys = keyboard.Listener(
        lambda key: log.hold({key_name(key): 1}), lambda key: log.hold({key_name(key): 0})
    )
    pointer = mouse.Listener(
        on_move=Pointer(log).move,
        on_click=lambda _x, _y, button, down: log.hold({BUTTONS.get(button.name): int(down)}),
        on_scroll=lambda _x, _y, _dx, dy: log.move(wheel=dy),
    )
    with keys, pointer:
        log.run("all keys, so type no passwords", lambda: None, 0.01)
    log.close(mouse_dx=0)


if __name__ == "__main__":
    main()
