"""Image → Latent. The model lives in `perception`; this only moves messages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from jepa_arm_interfaces.msg import Latent
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image

from jepa_arm_ros import qos
from jepa_arm_ros.errors import MessageError
from jepa_arm_ros.health import Health
from jepa_arm_ros.messages import frame_from_image, latent_message
from jepa_arm_ros.parameters import parameter, read_parameters
from jepa_arm_ros.running import exit_with
from perception.preprocessing import prepare
from planner.runtime_options import MOVING
from planner.runtimes import load_bundle_on


@dataclass(frozen=True)
class EncoderParameters:
    bundle: str = parameter("", "folder of the world-model bundle whose encoder to run")
    runtime: str = parameter(MOVING, "auto, onnxruntime, openvino, torch or tensorrt[:precision]")
    force_runtime: bool = parameter(False, "use the runtime even if it is not exact enough or unchecked")
    max_frame_age_s: float = parameter(0.1, "frames older than this are dropped [s]", low=0.001, high=60.0)


class EncoderNode(LifecycleNode):
    def __init__(self) -> None:
        super().__init__("encoder")
        self.parameters = read_parameters(self, EncoderParameters)
        self.health = Health(self)
        self.active = False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            told, tell = self.parameters, self.get_logger().info
            bundle = load_bundle_on(Path(told.bundle), told.runtime, told.force_runtime, tell)
            self.encoder = bundle.encoder()
        except (ValueError, OSError) as error:
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        self.latent_publisher = self.create_publisher(Latent, "latent", qos.LATENT)
        on_image = self.health.monitor("image", self.on_image)
        self.create_subscription(
            Image, "camera/image_raw", on_image, qos.IMAGE, qos_overriding_options=qos.overridable()
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return super().on_deactivate(state)

    def on_image(self, message: Image) -> None:
        if not self.active:
            return
        if self.health.age_s(message.header.stamp) > self.parameters.max_frame_age_s:
            return self.health.late("image")
        try:
            frame = frame_from_image(message)
        except MessageError as error:
            return self.get_logger().error(f"frame ignored: {error}", throttle_duration_sec=1.0)
        started = time.perf_counter()
        spec = self.encoder.spec
        latent = self.encoder.encode(prepare(frame.image, spec.image_size)[None])[0]
        encode_ms = (time.perf_counter() - started) * 1e3
        self.latent_publisher.publish(latent_message(latent, spec.sha256, encode_ms, message.header))


def main() -> None:
    exit_with(EncoderNode)


if __name__ == "__main__":
    main()
