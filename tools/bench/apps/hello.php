<?php
require __DIR__ . '/count.php';
header('Content-Type: text/plain');
header('Content-Length: 12');
echo 'hello, world';
