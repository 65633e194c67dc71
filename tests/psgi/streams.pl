# Delayed answers and streams.
use strict;
use warnings;
use utf8;

my @plain = ('Content-Type' => 'text/plain');
our ($old_responder, $old_writer);

my %wrong = (
    twice => sub {
        my $respond = shift;
        $respond->([200, [@plain], ['once']]);
        eval { $respond->([200, [@plain], ['twice']]); 1 } or main::write_note("twice: $@");
    },
    never => sub { return },
    again => sub {
        my $respond = shift;
        # A mistake that the application sees can be mended.
        eval { $respond->([200, {@plain}, ['bad']]); 1 } or $respond->([200, [@plain], ["mended: $@"]]);
    },
    four => sub { $_[0]->([200, [@plain], [], []]) },
    none => sub { $_[0]->() },
    open => sub { my $writer = $_[0]->([200, [@plain]]); $writer->write('not all of it'); return },
    length => sub { my $writer = $_[0]->([200, [@plain, 'Content-Length' => 40]]); $writer->write('short'); $writer->close },
    death => sub { my $writer = $_[0]->([200, [@plain]]); $writer->write('part'); die "in the middle of a stream\n" },
    early => sub { my $writer = $_[0]->([200, [@plain]]); die "before the first byte\n" },
    late => sub { $_[0]->([200, [@plain], ['complete']]); die "after the answer\n" },
    wide => sub {
        my $writer = $_[0]->([200, [@plain]]);
        eval { $writer->write('€'); 1 } or $writer->write("refused: $@");
        $writer->close;
    },
    closed => sub {
        my $writer = $_[0]->([200, [@plain]]);
        $writer->write('said');
        $writer->close;
        $writer->close;
        eval { $writer->write('more'); 1 } or main::write_note("closed: $@");
    },
    keep => sub { $old_responder = $_[0]; $old_writer = $_[0]->([200, [@plain]]); $old_writer->close },
    kept => sub {
        my $respond = shift;
        my @said = map { my $code = $_; eval { $code->(); 1 } ? 'taken' : $@ }
            sub { $old_responder->([200, [@plain], ['x']]) }, sub { $old_writer->write('x') };
        $respond->([200, [@plain], [@said]]);
    },
);

return {
    delayed => sub { return sub { $_[0]->([200, [@plain], ['delayed']]) } },
    delayed_file => sub { return sub { open my $file, '<', 'data' or die $!; $_[0]->([200, [@plain], $file]) } },
    stream => sub {
        my ($env) = @_;
        return sub {
            my $writer = $_[0]->([200, [@plain, 'X-Class' => 'stream']]);
            my $can = join ',', map { $writer->can($_) ? $_ : () } qw(write close poll_cb);
            $writer->write("$can\n");
            $writer->write("piece $_\n") for 1 .. $env->{QUERY_STRING};
            $writer->write('');
            $writer->close;
        };
    },
    steps => sub {
        return sub {
            my $writer = $_[0]->([200, [@plain]]);
            $writer->write("one\n");
            for (1 .. 2000) { last if -e 'go'; select undef, undef, undef, 0.01 }
            $writer->write("two\n");
            $writer->close;
        };
    },
    flood => sub {
        return sub {
            my $writer = $_[0]->([200, [@plain]]);
            my $guard = bless {}, 'Guard';
            while (1) { $writer->write('x' x 100000) }
        };
    },
    answers => sub {
        return sub {
            my $writer = $_[0]->([200, [@plain, 'Content-Length' => 9]]);
            $writer->write($_) for qw(four fives);
            main::write_note('has written');
            for (1 .. 2000) { last if -e 'go'; select undef, undef, undef, 0.01 }
            $writer->close;
        };
    },
    stream_wrong => sub {
        my ($env) = @_;
        my ($name) = $env->{PATH_INFO} =~ m{([^/]*)$};
        return $wrong{$name} || [404, [@plain], ["no such thing: $name"]];
    },
};

package Guard;
sub DESTROY { main::write_note('destroyed') }
