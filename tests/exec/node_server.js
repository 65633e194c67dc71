// Node's own http server on the socket that PORT names, and a WebSocket by hand (RFC 6455): what it says is said back.
"use strict";
const http = require("http");
const crypto = require("crypto");

const server = http.createServer((request, response) => {
	if (request.url === "/hints") {
		response.writeEarlyHints({ link: "</a.css>; rel=preload" });
		response.end("after hints");
		return;
	}
	const digest = crypto.createHash("sha256");
	let length = 0;
	request.on("data", (data) => {
		digest.update(data);
		length += data.length;
	});
	request.on("end", () => {
		response.setHeader("Content-Type", "application/json");
		response.end(JSON.stringify({ url: request.url, length, sha256: digest.digest("hex"), fields: request.headers }));
	});
});

server.on("checkContinue", (request, response) => {
	if (request.url === "/refuse") {
		response.writeHead(413, { Connection: "close" });
		response.end("too large");
		return;
	}
	response.writeContinue();
	server.emit("request", request, response);
});

server.on("upgrade", (request, socket) => {
	const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	const accept = crypto.createHash("sha1").update(key).digest("base64");
	socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
	socket.on("data", (frame) => {
		// One short masked text frame at a time is all that the test sends.
		if ((frame[0] & 15) === 8) {
			socket.end(Buffer.from([0x88, 0]));
			return;
		}
		const length = frame[1] & 127, mask = frame.subarray(2, 6);
		const text = Buffer.from(frame.subarray(6, 6 + length).map((byte, i) => byte ^ mask[i % 4]));
		socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text]));
	});
	socket.on("error", () => socket.destroy());
});

server.listen(process.env.PORT);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
