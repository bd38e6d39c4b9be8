"""Log a pad through SDL while OBS records: python log_pad.py FOLDER. Needs `pip install pygame`."""

import os
import sys

from event_log import EventLog, arguments

BUTTONS = (  # in SDL's order, called as in the action space `xinput`
    "a", "b", "x", "y", "back", "guide", "start", "left_thumb", "right_thumb",
    "left_shoulder", "right_shoulder", "up", "down", "left", "right",
)  # fmt: skip
AXES = ("left_x", "left_y", "right_x", "right_y", "left_trigger", "right_trigger")
POLL_S = 0.004


def held(pad):
    """What is held now, by name. SDL's sticks grow downwards, those of `xinput` upwards."""
    now = {name: int(pad.get_button(number)) for number, name in enumerate(BUTTONS)}
    for number, name in enumerate(AXES):
        value = max(-1.0, pad.get_axis(number) / 32767)
        now[name] = round(-value if name.endswith("_y") else value, 3)
    return now


def main():
    """Log the first pad until it goes or Ctrl+C is pressed."""
    given = arguments(__doc__)
    os.environ["SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS"] = "1"  # the game has the focus
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        import pygame
        from pygame._sdl2 import controller
    except ImportError:
        sys.exit("log_pad.py needs pygame, which is not installed: pip install pygame")
    pygame.display.init()
    controller.init()
    pads = [n for n in range(controller.get_count()) if controller.is_controller(n)]
    if not pads:
        sys.exit("no pad found: connect it, press a button on it, and start again")
    pad = controller.Controller(pads[0])
    log = EventLog(given.folder, given.offset_ms)

    def poll():
        pygame.event.pump()
        log.hold(held(pad))
        return pad.attached()

    log.run(pad.name, poll, POLL_S)
    log.close(left_x=log.state["left_x"])


if __name__ == "__main__":
    main()
