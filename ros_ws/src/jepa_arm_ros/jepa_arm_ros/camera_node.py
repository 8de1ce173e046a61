"""A real camera behind the `Camera` contract: usable frames out, and how the stream is in /diagnostics."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo, Image

from hardware.calibration.moved import Comparison, Placement, compare
from hardware.calibration.views import read_picture
from hardware.camera.contract import Frame, Intrinsics, NoNewFrame
from hardware.camera.fit import Fit
from hardware.camera.health import StreamConfig, StreamHealth, StreamState
from hardware.camera.reader import CameraReader
from hardware.camera.source import camera_source
from hardware.errors import CalibrationError, CameraError
from hardware.robot import load_robot
from jepa_arm_ros import qos
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import camera_info_message, depth_message, image_message
from jepa_arm_ros.parameters import parameter, read_parameters
from jepa_arm_ros.running import exit_with

TAKE_TIMEOUT_S = 0.2
DEPTH_TOPIC = "camera/aligned_depth_to_color/image_raw"
DEFAULT = StreamConfig()
LEVELS = {
    StreamState.OK: DiagnosticStatus.OK,
    StreamState.OPENING: DiagnosticStatus.WARN,
    StreamState.ENDED: DiagnosticStatus.WARN,
}

PLACEMENT_LEVELS = {
    Placement.IN_PLACE: DiagnosticStatus.OK,
    Placement.MOVED: DiagnosticStatus.ERROR,
    Placement.UNKNOWN: DiagnosticStatus.WARN,
}


@dataclass(frozen=True)
class CameraParameters:
    camera: str = parameter(
        "", "the camera, as `jepa-arm cameras` names it: realsense, uvc:DEVICE, file:PATH"
    )
    robot: str = parameter("panda", "robot file whose camera mount this is: a name or a path")
    max_age_s: float = parameter(DEFAULT.max_age_s, "older frames are not sent [s]", low=0.001, high=10.0)
    silent_after_s: float = parameter(
        DEFAULT.silent_after_s, "this long without a frame is called silent [s]", low=0.05, high=60.0
    )
    frozen_after_s: float = parameter(
        DEFAULT.frozen_after_s, "this long no new picture is called frozen [s]", low=0.05, high=60.0
    )
    blocked_after_s: float = parameter(
        DEFAULT.blocked_after_s, "a read that takes this long is called blocked [s]", low=0.5, high=60.0
    )
    reconnect_after_s: float = parameter(
        DEFAULT.reconnect_after_s, "silent or frozen this long, it is opened again [s]", low=0.1, high=600.0
    )
    dark_level: int = parameter(
        DEFAULT.dark_level, "dark: 99 of 100 pixels below this grey level, 0: never", low=0, high=255
    )


class CameraNode(LifecycleNode):
    """Publishes on a thread of its own what the reading thread has for it."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.parameters = read_parameters(self, CameraParameters)
        robot = load_robot(self.parameters.robot)
        self.mount, self.calibration = robot.camera, robot.camera_calibration
        self.source = camera_source(self.parameters.camera, self.mount.rate_hz, self.mount.frame_id)
        self.health = Health(self)
        self.health.also_report(lambda: {"frames_sent": self.frames_sent})
        self.health.also_report_status(self.stream_status)
        if self.calibration is not None and self.calibration.reference is not None:
            self.health.also_report_status(self.placement_status)
        self.frames_sent = 0
        self.reader: CameraReader | None = None
        self.publisher: threading.Thread | None = None
        self.stopping = threading.Event()
        self.told: StreamState | None = None
        self.placement: Comparison | None = None

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        given, size = self.parameters, self.source.size
        try:
            if size is not None:
                self.fit_of(size)
            self.config = StreamConfig(
                size=size,
                max_age_s=given.max_age_s,
                silent_after_s=given.silent_after_s,
                frozen_after_s=given.frozen_after_s,
                blocked_after_s=given.blocked_after_s,
                reconnect_after_s=given.reconnect_after_s,
                dark_level=given.dark_level,
            )
        except CameraError as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self.image_publisher = self.create_publisher(
            Image, "camera/image_raw", qos.IMAGE, qos_overriding_options=qos.overridable()
        )
        self.depth_publisher = self.create_publisher(Image, DEPTH_TOPIC, qos.IMAGE)
        self.info_publisher = self.create_publisher(CameraInfo, "camera/camera_info", qos.CAMERA_INFO)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the camera only now, so that a recording does not play before anybody listens."""
        reader = CameraReader(self.source.make, self.config, reopen=self.source.live)
        try:
            reader.start()
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self.reader = reader
        self.stopping.clear()
        self.publisher = threading.Thread(target=self.publish_frames, args=(reader,), daemon=True)
        self.publisher.start()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.stop_reading()
        return super().on_deactivate(state)

    def publish_frames(self, reader: CameraReader) -> None:
        while not self.stopping.is_set():
            try:
                self.publish(reader.take(TAKE_TIMEOUT_S).frame, getattr(reader.camera, "intrinsics", None))
            except NoNewFrame:
                self.stopping.wait(0.01)  # a recording at its end says so at once
            except CameraError as error:
                self.get_logger().error(str(error), throttle_duration_sec=5.0)
            self.tell_changes(reader.health())

    def publish(self, frame: Frame, lens: Intrinsics | None) -> None:
        if self.placement is None:
            self.compare_with_calibration(frame)
        height, width, _ = frame.image.shape
        fit = self.fit_of((width, height))
        lens = self.measured_lens((width, height)) or lens
        fitted = fit.frame(frame)
        self.image_publisher.publish(image_message(fitted))
        if fitted.depth_mm is not None:
            self.depth_publisher.publish(depth_message(fitted))
        known = fit.intrinsics(lens) if lens else None
        self.info_publisher.publish(camera_info_message(self.mount, frame.stamp_ns, known))
        self.frames_sent += 1

    def compare_with_calibration(self, frame: Frame) -> None:
        """Once, with the first frame: whether the camera still stands where it was calibrated."""
        if self.calibration is None or self.calibration.reference is None:
            return
        try:
            self.placement = compare(read_picture(self.calibration.reference), frame.image)
        except CalibrationError as error:
            self.placement = Comparison(Placement.UNKNOWN, None, str(error))
        if self.placement.placement is not Placement.IN_PLACE:
            self.get_logger().error(f"{self.placement.text}: run `jepa-arm calibrate camera` again")

    def measured_lens(self, size: tuple[int, int]) -> Intrinsics | None:
        """The calibration's, if it was made at this size."""
        known = self.calibration
        if known is None or (known.width, known.height) != size:
            return None
        return Intrinsics(*size, known.fx, known.fy, known.cx, known.cy, known.distortion)

    def fit_of(self, size: tuple[int, int]) -> Fit:
        return Fit(size, (self.mount.width, self.mount.height))

    def tell_changes(self, health: StreamHealth) -> None:
        if health.state is self.told:
            return
        text = f"camera {self.source.text}: {health.state.value}" + (health.text and f", {health.text}")
        if health.state in (StreamState.OK, StreamState.OPENING):
            self.get_logger().info(text)
        else:
            self.get_logger().error(text)
        self.told = health.state

    def stream_status(self) -> DiagnosticStatus:
        status = DiagnosticStatus(name="stream", hardware_id=self.source.text)
        if self.reader is None:
            status.level, status.message = DiagnosticStatus.WARN, "not active"
            return status
        health = self.reader.health()
        status.level = LEVELS.get(health.state, DiagnosticStatus.ERROR)
        status.message = health.state.value + (health.text and f": {health.text}")
        age_ms = "" if health.age_s is None else f"{health.age_s * 1e3:.1f}"
        values = {"state": health.state.value, "age_ms": age_ms, **asdict(health.counts)}
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return status

    def placement_status(self) -> DiagnosticStatus:
        status = DiagnosticStatus(name="placement", hardware_id=self.source.text)
        if self.placement is None:
            status.level, status.message = DiagnosticStatus.WARN, "no frame yet"
            return status
        status.level, status.message = PLACEMENT_LEVELS[self.placement.placement], self.placement.text
        return status

    def stop_reading(self) -> None:
        self.stopping.set()
        if self.publisher is not None:
            self.publisher.join()
            self.publisher = None
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.stop()

    def destroy_node(self) -> None:
        self.stop_reading()
        super().destroy_node()


def main() -> None:
    exit_with(CameraNode)


if __name__ == "__main__":
    main()
