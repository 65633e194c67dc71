# Answers: status, headers, bodies of every kind, and what is wrong with some.
use strict;
use warnings;
use utf8;

my @plain = ('Content-Type' => 'text/plain');

{
    package Lines;    # the least that PSGI asks of a body
    sub new { my ($class, %self) = @_; return bless {parts => [], %self}, $class }
    sub getline {
        my ($self) = @_;
        return $self->{again} if defined $self->{again};
        my $part = shift @{$self->{parts}};
        return ref $part eq 'CODE' ? $part->() : $part;
    }
    sub close {
        my ($self) = @_;
        main::write_note($self->{name});
        die "close failed\n" if $self->{bad_close};
        return 1;
    }

    package Path;
    our @ISA = ('Lines');
    sub path { return $_[0]{path} }

    package Handle;    # a handle that gives something else than its file does
    require IO::File;
    our @ISA = ('IO::File');
    sub getline { my $line = $_[0]->SUPER::getline; return defined $line ? uc $line : undef }

    package Tied;
    sub TIEHANDLE { return bless [@_[1 .. $#_]], $_[0] }
    sub READLINE  { return shift @{$_[0]} }
    sub CLOSE     { main::write_note('tied'); return 1 }

    package WithoutWords;
    sub new { return bless {code => 42, message => 'no words'}, shift }

    package Words;
    use overload '""' => sub { return "in words: $_[0]{text}" }, 'bool' => sub { return 0 }, fallback => 1;

    package Unspeakable;
    use overload '""' => sub { die "never\n" }, fallback => 0;

    package Callable;
    use overload '&{}' => sub { my $self = shift; return sub { $_[0]->([200, [@plain], ['an object as a function']]) } },
        fallback => 1;
}

sub main::write_note {
    my ($line) = @_;
    return unless defined $line;
    open my $file, '>>', 'closed' or die $!;
    syswrite $file, "$line\n";
}

sub answer { return [200, [@plain], [@_]] }

sub file {
    my ($layers, $name) = @_;
    open my $file, '<' . ($layers || ''), $name || 'data' or die "data: $!";
    return $file;
}

my %file = (
    whole => sub { return [200, [@plain], file()] },
    length => sub { my $file = file(); return [200, [@plain, 'Content-Length' => -s $file], $file] },
    place => sub { my $file = file(); seek $file, 9000, 0; read $file, my $buffer, 10; return [200, [@plain], $file] },
    part => sub { my $file = file(); seek $file, 100, 0; return [206, [@plain, 'Content-Length' => 50], $file] },
    short => sub { my $file = file(); return [200, [@plain, 'Content-Length' => 20000], $file] },
    crlf => sub { return [200, [@plain], file(':crlf', 'lines')] },
    wide => sub { return [200, [@plain], file(':utf8', 'wide')] },
    memory => sub { open my $file, '<', \"in memory\n" or die $!; return [200, [@plain], $file] },
    pipe => sub { open my $file, '-|', 'echo from a pipe' or die $!; return [200, [@plain], $file] },
    iofile => sub { return [200, [@plain], IO::File->new('data', 'r')] },
    upper => sub { return [200, [@plain], Handle->new('lines', 'r')] },
    io => sub { my $file = file(); return [200, [@plain], *{$file}{IO}] },
    glob => sub { our $glob; open GLOB, '<', 'data' or die $!; return [200, [@plain], \*GLOB] },
    empty => sub { open my $file, '<', '/dev/null' or die $!; return [200, [@plain], $file] },
    tied => sub { tie *TIED, 'Tied', "tied ", "handle"; return [200, [@plain], \*TIED] },
    directory => sub { open my $file, '<', '.' or die $!; return [200, [@plain], $file] },
);

my %wrong = (
    undef => sub { return },
    string => sub { return 'text' },
    hash => sub { return {} },
    two => sub { return [200, [@plain]] },
    four => sub { return [200, [@plain], [], []] },
    status => sub { return ['OK', [@plain], ['x']] },
    interim => sub { return [103, [], []] },
    nostatus => sub { return [undef, [@plain], ['x']] },
    odd => sub { return [200, ['Content-Type'], ['x']] },
    headers => sub { return [200, {@plain}, ['x']] },
    newline => sub { return [200, [@plain, 'X-Bad' => "a\r\nX-Injected: 1"], ['x']] },
    name => sub { return [200, [@plain, 'X Bad' => 'a'], ['x']] },
    coding => sub { return [200, [@plain, 'Transfer-Encoding' => 'gzip'], ['x']] },
    euro => sub { return [200, [@plain, 'X-Price' => '5 €'], ['x']] },
    body => sub { return [200, [@plain], 'text'] },
    nobody => sub { return [200, [@plain], undef] },
    object => sub { return [200, [@plain], bless {}, 'WithoutWords'] },
    wide => sub { return [200, [@plain], ['first', 'wide €']] },
    lines => sub { return [200, [@plain], Lines->new(name => 'wide', parts => ['wide €'])] },
    chunks => sub { return [200, [@plain, 'Transfer-Encoding' => 'chunked'], ['no chunk']] },
    half => sub { return [200, [@plain, 'Transfer-Encoding' => 'chunked'], ["5\r\nhel"]] },
);

my %death = (
    plain => sub { die "a plain death\n" },
    line => sub { die 'with its line' },
    nested => sub { my $deep = sub { eval { die "inner\n" }; die "outer of $@" }; $deep->() },
    words => sub { die bless {text => 'an object'}, 'Words' },
    wordless => sub { die WithoutWords->new },
    unspeakable => sub { die bless {}, 'Unspeakable' },
    hash => sub { die {code => 7, reason => 'a hash'} },
    wide => sub { die "death in utf-8: \x{20ac}\n" },
    empty => sub { local $@; die },
    runtime => sub { my $nothing; return $nothing->method },
    long => sub { die "many lines\n" . join '', map { "line $_\n" } 1 .. 50 },
);

sub named {
    my ($table) = @_;
    return sub {
        my ($env) = @_;
        my ($name) = $env->{PATH_INFO} =~ m{([^/]*)$};
        my $code = $table->{$name} or return [404, [@plain], ["no such thing: $name"]];
        return $code->($env);
    };
}

return {
    file => named(\%file),
    wrong => named(\%wrong),
    die => named(\%death),
    status => sub { my ($n) = $_[0]{QUERY_STRING}; return [$n, $n == 204 || $n == 304 ? [] : [@plain], $n == 204 || $n == 304 ? [] : ["status $n"]] },
    text_status => sub { return ['200', [@plain], ['a text as status']] },
    headers => sub { return [200, [@plain, 'X-A' => 1, 'Set-Cookie' => 'a=1', 'x-a' => 2, 'Set-Cookie' => 'b=2', 'X-Empty' => '',
        'X-Undef' => undef, 'X-Latin' => "caf\xe9", 'X-Number' => 5.5, Connection => 'close', 'Keep-Alive' => 'timeout=5'], ['x']] },
    many_headers => sub { return [200, [@plain, map { ("X-Many-$_" => $_) } 1 .. 90], ['many']] },
    parts => sub { return answer('', 'one', undef, 2, '', 'three') },
    none => sub { return [200, [@plain], []] },
    holes => sub { my @parts = ('a'); $parts[3] = 'd'; return [200, [@plain], \@parts] },
    large => sub { return [200, [@plain], [map { chr(65 + $_ % 26) x 1000 } 0 .. $_[0]{QUERY_STRING} - 1]] },
    one_large => sub { return answer('x' x $_[0]{QUERY_STRING}) },
    upgraded => sub { my $text = "caf\xe9"; utf8::upgrade($text); return answer($text) },
    length => sub { return [200, [@plain, 'Content-Length' => $_[0]{QUERY_STRING}], ['hello']] },
    lines => sub { return [200, [@plain], Lines->new(name => 'lines', parts => ['1', '', '2', '0', '3'])] },
    separator => sub { return [200, [@plain], Lines->new(parts => [sub { return ref $/ ? "blocks of ${$/}" : 'lines' }])] },
    path => sub { return [200, [@plain], Path->new(name => 'path', path => readlink('/proc/self/cwd') . '/data', parts => ['not this'])] },
    path_part => sub { return [200, [@plain, 'Content-Length' => 4], Path->new(path => readlink('/proc/self/cwd') . '/data', parts => ['part'])] },
    path_missing => sub { return [200, [@plain], Path->new(path => '/nonexistent', parts => ['read instead'])] },
    bad_close => sub { return [200, [@plain], Lines->new(name => 'bad', parts => ['good'], bad_close => 1)] },
    broken => sub { return [200, [@plain], Lines->new(name => 'broken', parts => ['part', sub { die "in the middle\n" }])] },
    broken_first => sub { return [200, [@plain], Lines->new(name => 'broken', parts => [sub { die "at the beginning\n" }])] },
    endless => sub { return [200, [@plain], Lines->new(name => 'endless', again => 'x' x 50000)] },
    exact => sub { my $body = Lines->new(name => 'exact', parts => ['four', 'fives', sub { main::write_note('asked again'); for (1 .. 2000) { last if -e 'go'; select undef, undef, undef, 0.01 } return }]);
        return [200, [@plain, 'Content-Length' => 9], $body] },
    chunked => sub { return [200, [@plain, 'Transfer-Encoding' => 'chunked'], Lines->new(name => 'chunked', parts => ["5\r\nhel", "lo\r", "\n1;x=y\r\n,\r\n", "7\r\n chunks\r\n0\r\nX-T: 1\r\n\r\n"])] },
    callable => sub { return bless {}, 'Callable' },
};
