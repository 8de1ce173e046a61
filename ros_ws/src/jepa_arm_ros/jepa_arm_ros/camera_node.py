"""A real camera behind the `Camera` contract: frames out, nothing else."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image

from hardware.camera.contract import NoNewFrame
from hardware.robot import load_robot
from jepa_arm_ros import qos
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import camera_info_message, image_message
from jepa_arm_ros.parameters import import_factory, parameter, read_parameters
from jepa_arm_ros.running import exit_with

READ_TIMEOUT_S = 0.2
# A camera that says at once that it has nothing (a file at its end) is not asked again at full load.
PAUSE_S = 0.01


@dataclass(frozen=True)
class CameraParameters:
    camera: str = parameter(
        "hardware.camera.file:FileCamera", "what makes the Camera: module:callable(source, rate_hz, frame_id)"
    )
    source: str = parameter("", "what the camera reads from: a path or a device")
    robot: str = parameter("panda", "robot file whose camera mount this is: a name or a path")


class CameraNode(LifecycleNode):
    """Reads on a thread of its own, as a camera read waits for the next frame."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.parameters = read_parameters(self, CameraParameters)
        self.make_camera = import_factory(self, "camera", self.parameters.camera)
        self.mount = load_robot(self.parameters.robot).camera
        self.health = Health(self)
        self.health.also_report(lambda: {"frames_sent": self.frames_sent, "timeouts": self.timeouts})
        self.frames_sent = self.timeouts = 0
        self.reader: threading.Thread | None = None
        self.stopping = threading.Event()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            mount = self.mount
            self.camera = self.make_camera(self.parameters.source, mount.rate_hz, mount.frame_id)
            self.camera.open()
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self.image_publisher = self.create_publisher(
            Image, "camera/image_raw", qos.IMAGE, qos_overriding_options=qos.overridable()
        )
        self.info_publisher = self.create_publisher(CameraInfo, "camera/camera_info", qos.CAMERA_INFO)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stopping.clear()
        self.reader = threading.Thread(target=self.read_frames, daemon=True)
        self.reader.start()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop_reading()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.camera.close()
        return super().on_cleanup(state)

    def read_frames(self) -> None:
        while not self.stopping.is_set():
            try:
                frame = self.camera.read(READ_TIMEOUT_S)
            except NoNewFrame:
                self.timeouts += 1
                self.stopping.wait(PAUSE_S)
            except (ValueError, OSError) as error:
                self.get_logger().error(f"the camera stopped: {error}")
                return
            self.image_publisher.publish(image_message(frame))
            self.info_publisher.publish(camera_info_message(self.mount, frame.stamp_ns))
            self.frames_sent += 1

    def stop_reading(self) -> None:
        self.stopping.set()
        if self.reader is not None:
            self.reader.join()
            self.reader = None

    def destroy_node(self) -> None:
        self.stop_reading()
        super().destroy_node()


def main() -> None:
    exit_with(CameraNode)


if __name__ == "__main__":
    main()
